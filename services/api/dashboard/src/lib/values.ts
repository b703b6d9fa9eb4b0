// Values of variables: every one is a text with a canonical form. Reads what a person typed, and
// decides whether two texts mean the same. No drafts, no rendering.

import type { EnumOption, Reported } from './types';

/** The part of a declaration that a value is checked against. */
export type Declaration = Partial<Reported>;

export type Parsed = { ok: true; text: string } | { ok: false; error: string };

export const KNOWN_TYPES = [
  'boolean',
  'integer',
  'float',
  'string',
  'enum',
  'color',
  'vector',
  'json',
] as const;

const INTEGER_MIN = -(2n ** 63n);
const INTEGER_MAX = 2n ** 63n - 1n;
const VECTOR_MIN = 2;
const VECTOR_MAX = 4;

function fail(error: string): Parsed {
  return { ok: false, error };
}

function done(text: string): Parsed {
  return { ok: true, text };
}

export function optionValue(option: EnumOption): string {
  return typeof option === 'string' ? option : option.value;
}

export function optionLabel(option: EnumOption): string {
  return typeof option === 'string' ? option : (option.label ?? option.value);
}

/** A bound of a declaration as a number, or undefined when there is none. */
export function bound(value: number | string | undefined): number | undefined {
  if (value === undefined || value === '') return undefined;
  const number = Number(value);
  return Number.isFinite(number) ? number : undefined;
}

function boolean(text: string): Parsed {
  const word = text.trim().toLowerCase();
  if (word === 'true' || word === '1') return done('true');
  if (word === 'false' || word === '0') return done('false');
  return fail('must be true or false');
}

function within(number: number, declared: Declaration): string | null {
  const min = bound(declared.min);
  const max = bound(declared.max);
  if (min !== undefined && number < min) return `must be at least ${min}`;
  if (max !== undefined && max < number) return `must be at most ${max}`;
  return null;
}

function integer(text: string, declared: Declaration): Parsed {
  const trimmed = text.trim();
  if (!/^[+-]?\d+$/.test(trimmed)) return fail('must be a whole number');
  const number = BigInt(trimmed.replace(/^\+/, ''));
  if (number < INTEGER_MIN || INTEGER_MAX < number) return fail('does not fit into 64 bits');
  const error = within(Number(number), declared);
  return error ? fail(error) : done(number.toString());
}

function floatNumber(text: string): number | null {
  const trimmed = text.trim();
  if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(trimmed)) return null;
  const number = Number(trimmed);
  return Number.isFinite(number) ? number : null;
}

function float(text: string, declared: Declaration): Parsed {
  const number = floatNumber(text);
  if (number === null) return fail('must be a number');
  const error = within(number, declared);
  if (error) return fail(error);
  // A whole number keeps its point, so that a reader sees the type.
  const short = String(number);
  return done(/^-?\d+$/.test(short) ? `${short}.0` : short);
}

function color(text: string): Parsed {
  const hex = /^#?([0-9a-f]{3,4}|[0-9a-f]{6}|[0-9a-f]{8})$/i.exec(text.trim())?.[1]?.toLowerCase();
  if (hex === undefined) return fail('must be #rrggbb or #rrggbbaa');
  const long = hex.length <= 4 ? [...hex].map((digit) => digit + digit).join('') : hex;
  return done(`#${long.length === 6 ? `${long}ff` : long}`);
}

/** The parts of a vector, or null when the text is none. */
export function vectorParts(text: string): number[] | null {
  try {
    const parts = JSON.parse(text) as unknown;
    if (!Array.isArray(parts)) return null;
    const all = parts.every((part) => typeof part === 'number' && Number.isFinite(part));
    return all ? (parts as number[]) : null;
  } catch {
    return null;
  }
}

function vector(text: string): Parsed {
  const parts = vectorParts(text);
  if (parts === null || parts.length < VECTOR_MIN || VECTOR_MAX < parts.length) {
    return fail('must be 2 to 4 numbers, as [x,y]');
  }
  return done(JSON.stringify(parts));
}

function json(text: string): Parsed {
  try {
    return done(JSON.stringify(JSON.parse(text)));
  } catch (error) {
    return fail(`is no JSON: ${error instanceof Error ? error.message : 'unreadable'}`);
  }
}

/** Reads what was typed, in the bounds of the declaration; the text is canonical. */
export function parseValue(type: string | undefined, text: string, declared: Declaration = {}): Parsed {
  switch (type) {
    case 'boolean':
      return boolean(text);
    case 'integer':
      return integer(text, declared);
    case 'float':
      return float(text, declared);
    case 'color':
      return color(text);
    case 'vector':
      return vector(text);
    case 'json':
      return json(text);
    case 'enum': {
      const options = declared.options?.map(optionValue);
      if (options && !options.includes(text)) return fail('is not one of the options');
      return done(text);
    }
    default:
      return done(text);
  }
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== 'object') return value;
  const entries = Object.entries(value as Record<string, unknown>);
  entries.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return Object.fromEntries(entries.map(([name, inner]) => [name, sorted(inner)]));
}

function comparable(type: string | undefined, text: string, bits: number | undefined): string {
  if (type === 'float' || type === 'integer') {
    const number = floatNumber(text);
    if (number === null) return `?${text}`;
    if (type === 'integer' && /^[+-]?\d+$/.test(text.trim())) return BigInt(text.trim().replace('+', '')).toString();
    return String((bits === 32 ? Math.fround(number) : number) + 0);
  }
  if (type === 'json') {
    try {
      return JSON.stringify(sorted(JSON.parse(text)));
    } catch {
      return `?${text}`;
    }
  }
  const parsed = parseValue(type, text);
  return parsed.ok ? parsed.text : `?${text}`;
}

/** Whether two texts mean the same value: they are compared after reading, never as text. */
export function sameValue(type: string | undefined, a: string, b: string, bits?: number): boolean {
  return a === b || comparable(type, a, bits) === comparable(type, b, bits);
}
