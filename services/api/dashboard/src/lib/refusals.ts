// Why the server lets nobody in, in words for the sign-in, and what can be done about it. Pure.

import type { Problem } from './types';

export interface Refusal {
  text: string;
  /** The key can be registered, and then it is let in. */
  registrable: boolean;
}

export const CLOSED =
  'This server is closed: there is no sign-in yet, and it lets nobody in by key alone. Whoever runs it opens it with the setting ' +
  'api.open_keys = true (OBSERVER_API__OPEN_KEYS=true).';

/** Of a key that was tried, or was in use. */
export function refusalOf(problem: Problem, message: string): Refusal {
  if (problem.status === 401) return { text: CLOSED, registrable: false };
  if (problem.code === 'unknown_project') return { text: 'No project has this key yet.', registrable: true };
  return { text: `That did not work: ${message}.`, registrable: false };
}
