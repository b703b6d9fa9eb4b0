// What the log is asked for, as one text line plus level and range, and its form in the page's
// address. Words go to the server as they are; `level:` and `device:` become fields. No I/O.

import { LEVELS, type Level } from './types';

/** Longest filter text sent, in characters. */
export const FILTER_CHARS_MAX = 500;

export type RangeName = 'live' | '15m' | '1h' | '24h' | '7d' | 'custom';

export const RANGES: { name: RangeName; label: string; ms: number }[] = [
  { name: 'live', label: 'Live', ms: 0 },
  { name: '15m', label: 'Last 15 min', ms: 15 * 60_000 },
  { name: '1h', label: 'Last hour', ms: 3_600_000 },
  { name: '24h', label: 'Last 24 h', ms: 86_400_000 },
  { name: '7d', label: 'Last 7 days', ms: 7 * 86_400_000 },
  { name: 'custom', label: 'From … to', ms: 0 },
];

export interface Filter {
  text: string;
  level: Level | '';
  device: string | null;
  range: RangeName;
  /** RFC 3339, for the range `custom` only. */
  since: string;
  until: string;
}

export const NO_FILTER: Filter = { text: '', level: '', device: null, range: 'live', since: '', until: '' };

/** The server's query fields. `level:x` and `device:y` in the text win over buttons and list. */
export function queryOf(filter: Filter): { q: string; level: string; device: string } {
  let level: string = filter.level;
  let device = filter.device ?? '';
  const words: string[] = [];
  for (const word of filter.text.slice(0, FILTER_CHARS_MAX).match(/\S*"[^"]*"?|\S+/g) ?? []) {
    const field = /^(level|device):(.+)$/i.exec(word);
    const value = field?.[2] ?? '';
    if (field?.[1]?.toLowerCase() === 'level' && isLevel(value.toLowerCase())) level = value.toLowerCase();
    else if (field?.[1]?.toLowerCase() === 'device') device = value;
    else words.push(word);
  }
  return { q: words.join(' '), level, device };
}

export function isLevel(text: string): text is Level {
  return (LEVELS as readonly string[]).includes(text);
}

/** Adds `name:value` to the text, quoted when needed; twice is once. */
export function withWord(text: string, name: string, value: string): string {
  const quoted = /[\s"]/.test(value) ? `"${value.replaceAll('"', '')}"` : value;
  const word = `${name}:${quoted}`;
  return text.includes(word) ? text : `${text} ${word}`.trim();
}

/** The time window of a range; nothing for Live. */
export function windowOf(filter: Filter, now: number): { since?: string; until?: string } {
  if (filter.range === 'live') return {};
  if (filter.range === 'custom') {
    return {
      ...(filter.since ? { since: filter.since } : {}),
      ...(filter.until ? { until: filter.until } : {}),
    };
  }
  const ms = RANGES.find((range) => range.name === filter.range)?.ms ?? 0;
  return { since: new Date(now - ms).toISOString() };
}

export type PageName = 'console' | 'connect';

/** `#/console?q=…`: page and filter, so that a view can be bookmarked. The key is never in it. */
export function toHash(page: PageName, filter: Filter): string {
  const params = new URLSearchParams();
  if (filter.text) params.set('q', filter.text);
  if (filter.level) params.set('level', filter.level);
  if (filter.device) params.set('device', filter.device);
  if (filter.range !== 'live') params.set('range', filter.range);
  if (filter.range === 'custom' && filter.since) params.set('since', filter.since);
  if (filter.range === 'custom' && filter.until) params.set('until', filter.until);
  const text = params.toString();
  return `#/${page}${text ? `?${text}` : ''}`;
}

export function fromHash(hash: string): { page: PageName; filter: Filter } {
  const found = /^#\/(console|connect)(?:\?(.*))?$/.exec(hash);
  const params = new URLSearchParams(found?.[2] ?? '');
  const level = params.get('level') ?? '';
  const range = RANGES.find((entry) => entry.name === params.get('range'))?.name ?? 'live';
  return {
    page: found?.[1] === 'connect' ? 'connect' : 'console',
    filter: {
      text: (params.get('q') ?? '').slice(0, FILTER_CHARS_MAX),
      level: isLevel(level) ? level : '',
      device: params.get('device'),
      range,
      since: params.get('since') ?? '',
      until: params.get('until') ?? '',
    },
  };
}
