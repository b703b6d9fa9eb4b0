// Numbers, times and records as short texts for the screen. Pure.

import type { LogRecord } from './types';

/** Longest message put into one row; the detail pane shows all of it. */
export const ROW_CHARS_MAX = 400;

function two(value: number): string {
  return value < 10 ? `0${value}` : String(value);
}

/** 12:04:05.123, local time. */
export function clock(time: string | number | undefined): string {
  const date = new Date(time ?? NaN);
  if (Number.isNaN(date.getTime())) return '--:--:--.---';
  const ms = String(date.getMilliseconds()).padStart(3, '0');
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`;
}

/** 12:04:05, local time. */
export function clockShort(time: number | string): string {
  return clock(time).slice(0, 8);
}

/** 23 Nov 12:04:05.123 */
export function dateTime(time: string | number | undefined): string {
  const date = new Date(time ?? NaN);
  if (Number.isNaN(date.getTime())) return 'unknown';
  return `${date.toLocaleDateString('en-GB', { day: 'numeric', month: 'short', year: 'numeric' })} ${clock(time)}`;
}

export function count(value: number): string {
  return value.toLocaleString('en-US');
}

/** 950/s, 1.2k/s, 10k/s */
export function rate(perSecond: number): string {
  if (perSecond < 1000) return `${Math.round(perSecond)}/s`;
  const thousands = perSecond / 1000;
  return `${thousands < 10 ? thousands.toFixed(1) : Math.round(thousands)}k/s`;
}

/** "now", "12 s", "5 m", "3 h", "2 d" before now. */
export function ago(time: string | undefined, now: number): string {
  const at = Date.parse(time ?? '');
  if (Number.isNaN(at)) return '';
  const seconds = Math.max(0, Math.round((now - at) / 1000));
  if (seconds < 2) return 'now';
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/**
 * Characters that turn a whole text around. Marks and first-strong isolates are none of them: they
 * stand in honest texts of many languages, and cannot reach beyond their cell.
 */
const TURNS = /[\u202a-\u202e\u2066\u2067]/g;

/** Shows such characters by their number instead of obeying them. */
export function withoutTurns(text: string): string {
  return text.replace(TURNS, (turn) => `‹U+${turn.charCodeAt(0).toString(16).toUpperCase()}›`);
}

/** The message's first line, or the record's fields when it has none. */
export function messageLine(record: LogRecord): string {
  const message = fullMessage(record);
  const text = message ?? JSON.stringify(fieldsOf(record));
  const end = text.indexOf('\n');
  return withoutTurns((end < 0 ? text : text.slice(0, end)).slice(0, ROW_CHARS_MAX));
}

export function fullMessage(record: LogRecord): string | null {
  if (typeof record.observer.message === 'string') return record.observer.message;
  const own = record['message'];
  if (own === undefined || own === null) return null;
  return typeof own === 'string' ? own : JSON.stringify(own);
}

/** The game's own fields, without what the server added. */
export function fieldsOf(record: LogRecord): Record<string, unknown> {
  const { observer: _, ...fields } = record;
  return fields;
}

export function tagOf(record: LogRecord): string {
  const tag = record.observer.tag ?? record['tag'];
  return typeof tag === 'string' ? tag : '';
}

/** A game's clock that is further off than this, in milliseconds, is not believed. */
export const SKEW_MS_MAX = 24 * 3_600_000;

/** When it happened by the game's clock; when it came, if the game gave no time or an absurd one. */
export function timeOf(record: LogRecord): string {
  const { time, received } = record.observer;
  if (time === undefined) return received;
  const skew = Math.abs(Date.parse(time) - Date.parse(received));
  return skew <= SKEW_MS_MAX ? time : received;
}

/** A steady hue for a device, 0 to 359, so that its chip looks the same everywhere. */
export function hueOf(text: string | null | undefined): number {
  if (!text) return 0;
  let hash = 2166136261;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 16777619);
  return (hash >>> 0) % 360;
}
