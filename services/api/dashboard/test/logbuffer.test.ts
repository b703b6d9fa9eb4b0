import { describe, expect, it } from 'vitest';
import { LogBuffer, Ring, type LogRow } from '../src/lib/logbuffer';
import type { LogRecord } from '../src/lib/types';

function records(from: number, to: number): LogRecord[] {
  const out: LogRecord[] = [];
  for (let i = from; i <= to; i++) {
    out.push({ observer: { id: String(i), key: 'k', device: 'd', received: '', level: 'info' } });
  }
  return out;
}

function ids(buffer: LogBuffer): string[] {
  return buffer.slice(0, buffer.length).map(text);
}

function text(row: LogRow): string {
  return row.kind === 'gap' ? `${row.reason} ${row.count}` : row.record.observer.id;
}

describe('ring', () => {
  it('keeps the newest and returns what had to leave', () => {
    const ring = new Ring<number>(3);
    expect([1, 2, 3, 4, 5].map((n) => ring.push(n))).toEqual([undefined, undefined, undefined, 1, 2]);
    expect(ring.slice(0, 9)).toEqual([3, 4, 5]);
    expect(ring.at(3)).toBeUndefined();
  });
});

describe('log buffer', () => {
  it('counts the records that left because it was full', () => {
    const buffer = new LogBuffer(3, 3);
    buffer.push(records(1, 5));
    expect(ids(buffer)).toEqual(['3', '4', '5']);
    expect(buffer.received).toBe(5);
    expect(buffer.evicted).toBe(2);
  });

  it('counts live records only, however often history is read', () => {
    const buffer = new LogBuffer(10, 10);
    buffer.history(records(1, 3));
    buffer.push(records(4, 5));
    buffer.reset();
    buffer.history(records(1, 5));
    expect(ids(buffer)).toEqual(['1', '2', '3', '4', '5']);
    expect(buffer.received).toBe(2);
  });

  it('shows nothing new while paused, and all of it after', () => {
    const buffer = new LogBuffer(10, 10);
    buffer.push(records(1, 2));
    buffer.pause();
    buffer.push(records(3, 4));
    expect(ids(buffer)).toEqual(['1', '2']);
    expect(buffer.waiting).toBe(2);
    buffer.resume();
    expect(ids(buffer)).toEqual(['1', '2', '3', '4']);
    expect(buffer.waiting).toBe(0);
  });

  it('shows as a gap what a long pause had to drop', () => {
    const buffer = new LogBuffer(10, 2);
    buffer.push(records(1, 1));
    buffer.pause();
    buffer.push(records(2, 6));
    expect(buffer.droppedWaiting).toBe(3);
    buffer.resume();
    expect(ids(buffer)).toEqual(['1', 'paused 3', '5', '6']);
    expect(buffer.droppedWaiting).toBe(0);
  });

  it('counts a gap in what is lost and keeps its place', () => {
    const buffer = new LogBuffer(10, 10);
    buffer.push(records(1, 1));
    buffer.gap(37, 'slow_viewer');
    buffer.push(records(2, 2));
    expect(ids(buffer)).toEqual(['1', 'slow_viewer 37', '2']);
    expect(buffer.lost).toBe(37);
  });

  it('hides rows on clear, here only, and brings them back', () => {
    const buffer = new LogBuffer(10, 10);
    buffer.clear();
    buffer.push(records(1, 3));
    expect(buffer.length).toBe(3);
    buffer.clear();
    buffer.push(records(4, 4));
    expect(ids(buffer)).toEqual(['4']);
    expect(buffer.hidden).toBe(3);
    buffer.undoClear();
    expect(ids(buffer)).toEqual(['1', '2', '3', '4']);
  });

  it('finds a row by its number, also after others left', () => {
    const buffer = new LogBuffer(3, 3);
    buffer.push(records(1, 5));
    const row = buffer.at(1) as LogRow;
    expect(buffer.indexOf(row.n)).toBe(1);
    expect(buffer.indexOf(1)).toBe(-1);
    expect(buffer.indexOf(999)).toBe(-1);
  });

  it('forgets rows on reset and goes on counting', () => {
    const buffer = new LogBuffer(3, 3);
    buffer.push(records(1, 2));
    buffer.pause();
    buffer.reset();
    buffer.push(records(3, 3));
    expect(ids(buffer)).toEqual(['3']);
    expect(buffer.received).toBe(3);
  });
});
