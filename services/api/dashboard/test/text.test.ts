import { describe, expect, it } from 'vitest';
import { Activity } from '../src/lib/activity';
import { query } from '../src/lib/api';
import { fromHash, NO_FILTER, queryOf, toHash, windowOf, withWord, type Filter } from '../src/lib/filter';
import { ago, messageLine, rate, withoutTurns } from '../src/lib/format';
import { isKey, keyInAddress } from '../src/lib/keys';
import { CLOSED, refusalOf } from '../src/lib/refusals';
import { base64, gameAddress, oneShot } from '../src/lib/wire';
import type { LogRecord } from '../src/lib/types';

const META = { id: '1', key: 'k', device: 'd', received: '2026-11-23T10:00:00Z', level: 'info' as const };

describe('refusals', () => {
  it('say of a closed server which setting opens it, and offer no key to register', () => {
    const closed = refusalOf({ status: 401, code: 'unauthenticated' }, 'sign in first');
    expect(closed).toEqual({ text: CLOSED, registrable: false });
    expect(closed.text).toContain('api.open_keys = true');
  });

  it('offer to register a key that is not known, and only that', () => {
    expect(refusalOf({ status: 404, code: 'unknown_project' }, 'x').registrable).toBe(true);
    expect(refusalOf({ status: 0, code: 'timeout' }, 'late')).toEqual({ text: 'That did not work: late.', registrable: false });
  });
});

describe('filter', () => {
  const asked = (text: string, change: Partial<Filter> = {}) => queryOf({ ...NO_FILTER, ...change, text });

  it('sends words and phrases on as they are', () => {
    expect(asked('time "lost it" tag:net')).toEqual({ q: 'time "lost it" tag:net', level: '', device: '' });
  });

  it('takes level and device out of the words', () => {
    expect(asked('level:WARN boom device:s-1', { level: 'info' })).toEqual({ q: 'boom', level: 'warn', device: 's-1' });
    expect(asked('level:odd')).toMatchObject({ q: 'level:odd' });
  });

  it('survives the way through the address', () => {
    const filter: Filter = { ...NO_FILTER, text: 'a "b c" &=#', level: 'warn', device: 's-1', range: '1h' };
    expect(fromHash(toHash('connect', filter))).toEqual({ page: 'connect', filter });
    expect(fromHash('#nonsense')).toEqual({ page: 'console', filter: NO_FILTER });
  });

  it('adds a word once, quoted when it has spaces', () => {
    expect(withWord('', 'tag', 'net')).toBe('tag:net');
    expect(withWord('tag:net', 'tag', 'net')).toBe('tag:net');
    expect(withWord('a', 'tag', 'my net')).toBe('a tag:"my net"');
  });

  it('asks for no window while live', () => {
    expect(windowOf(NO_FILTER, 0)).toEqual({});
    expect(windowOf({ ...NO_FILTER, range: '15m' }, 900_000)).toEqual({ since: '1970-01-01T00:00:00.000Z' });
  });

  it('leaves empty fields out of the address of a request', () => {
    expect(query({ q: '', level: 'warn', limit: 200, cursor: undefined })).toBe('?level=warn&limit=200');
    expect(query({})).toBe('');
  });
});

describe('key', () => {
  it('is twelve characters of its alphabet', () => {
    expect(isKey('abcDEF012_-x')).toBe(true);
    expect(isKey('abcdef01234')).toBe(false);
    expect(isKey('abcdef01234!')).toBe(false);
  });

  it('comes in with the address, in either form', () => {
    expect(keyInAddress('', '#key=demo-key-001')).toBe('demo-key-001');
    expect(keyInAddress('?key=demo-key-001', '')).toBe('demo-key-001');
    expect(keyInAddress('', '#/console?q=key')).toBeNull();
  });
});

describe('wire lines', () => {
  it('can be pasted into a shell', () => {
    const line = oneShot(['v:demo-key-001', 'l:demo-key-001:[{"message":"hello","level":"info"}]'], { host: '127.0.0.1', port: 6667 });
    expect(line).toBe(`printf 'v:demo-key-001\\nl:demo-key-001:[{"message":"hello","level":"info"}]\\n' | nc 127.0.0.1 6667`);
  });

  it('name a host that can be reached', () => {
    const server = { name: 'observer', version: '1', game: { host: '0.0.0.0', port: 7 } };
    expect(gameAddress(server, 'box.local')).toEqual({ host: 'box.local', port: 7 });
    expect(gameAddress(null, 'localhost')).toEqual({ host: 'localhost', port: 6667 });
  });

  it('are base64 of UTF-8', () => {
    expect(base64('[{"m":"ü"}]')).toBe('W3sibSI6IsO8In1d');
  });
});

describe('texts', () => {
  it('show the first line of a message, or the fields', () => {
    const record = (fields: object): LogRecord => ({ observer: META, ...fields });
    expect(messageLine(record({ message: 'one\ntwo' }))).toBe('one');
    expect(messageLine(record({ hp: 3 }))).toBe('{"hp":3}');
    expect(messageLine(record({ message: { a: 1 } }))).toBe('{"a":1}');
    expect(messageLine(record({ message: 'x'.repeat(5000) }))).toHaveLength(400);
    expect(messageLine(record({ message: 'a\u202etxt.exe' }))).toBe('a‹U+202E›txt.exe');
    expect(withoutTurns('שלום \u2068x\u2069')).toBe('שלום \u2068x\u2069');
  });

  it('are short', () => {
    expect([0, 412, 1234, 10_000].map(rate)).toEqual(['0/s', '412/s', '1.2k/s', '10k/s']);
    expect(ago('2026-11-23T10:00:00Z', Date.parse('2026-11-23T10:05:30Z'))).toBe('5 m');
    expect(ago(undefined, 0)).toBe('');
  });

  it('count records over whole seconds', () => {
    const activity = new Activity();
    activity.push(Array.from({ length: 30 }, (): LogRecord => ({ observer: META })));
    expect(activity.rate).toBe(0);
    activity.tick();
    expect(activity.rate).toBe(10);
  });
});
