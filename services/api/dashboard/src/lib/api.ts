// HTTP to the api service: one function a route, errors as ApiError. Knows no page state and
// repeats nothing by itself; whoever calls decides whether to try again.

import type { EditRequest, Page, Problem, ServerInfo, VarsSnapshot } from './types';

/** Longest wait for an answer, in milliseconds; past it the caller hears `timeout`. */
export const REQUEST_MS_MAX = 15_000;

/** A refused or failed request. `code` is the contract, `message` a sentence for people. */
export class ApiError extends Error {
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.detail || problem.title || problem.code);
    this.problem = problem;
  }

  get code(): string {
    return this.problem.code;
  }
}

/** What a search asks for; empty fields are left out of the address. */
export interface LogQuery {
  q?: string;
  level?: string;
  device?: string;
  since?: string;
  until?: string;
  limit?: number;
  cursor?: string;
}

function project(key: string): string {
  return `/api/v1/projects/${encodeURIComponent(key)}`;
}

/** `?a=b` of the fields that are set, or nothing. */
export function query(fields: object): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined && value !== null && value !== '') params.set(name, String(value));
  }
  const text = params.toString();
  return text === '' ? '' : `?${text}`;
}

async function problemOf(response: Response): Promise<Problem> {
  const fallback: Problem = {
    status: response.status,
    code: response.status === 404 ? 'not_found' : 'internal',
    detail: `the server answered ${response.status}`,
  };
  try {
    const body = (await response.json()) as Partial<Problem> & { error?: string };
    // The original's routes answer {"error": "…"}.
    if (typeof body.error === 'string') return { ...fallback, code: 'bad_request', detail: body.error };
    return { ...fallback, ...body, status: response.status };
  } catch {
    return fallback;
  }
}

async function call<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const limit = AbortSignal.timeout(REQUEST_MS_MAX);
  let response: Response;
  try {
    response = await fetch(path, {
      method,
      headers: body === undefined ? {} : { 'content-type': 'application/json' },
      body: body === undefined ? null : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    const late = limit.aborted;
    throw new ApiError({
      status: 0,
      code: late ? 'timeout' : 'unreachable',
      detail: late ? 'the server did not answer in time' : 'the server cannot be reached',
    });
  }
  if (!response.ok) throw new ApiError(await problemOf(response));
  return (await response.json()) as T;
}

export function getServer(): Promise<ServerInfo> {
  return call('GET', '/api/v1/server');
}

export function getLogs(key: string, asked: LogQuery, signal?: AbortSignal): Promise<Page> {
  return call('GET', `${project(key)}/logs${query(asked)}`, undefined, signal);
}

export function getVars(key: string, signal?: AbortSignal): Promise<VarsSnapshot> {
  return call('GET', `${project(key)}/vars`, undefined, signal);
}

export function patchVars(key: string, request: EditRequest): Promise<{ revision: number }> {
  return call('PATCH', `${project(key)}/vars`, request);
}

/** A new random key, not registered yet. */
export function newKey(): Promise<{ token: string }> {
  return call('GET', '/users/tokens');
}

/** Registers a key; one that is registered already stays as it is. */
export function registerKey(token: string): Promise<{ token: string }> {
  return call('POST', '/users/tokens', { token });
}

/** The stream's address, without its cursor. */
export function streamPath(key: string, asked: LogQuery): string {
  return `${project(key)}/stream${query(asked)}`;
}
