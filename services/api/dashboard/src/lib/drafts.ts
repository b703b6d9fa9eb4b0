// Edits that were typed and not sent: one draft a variable, each knowing the revision it was begun
// on, so that somebody else's edit in between shows as a conflict before anything is saved. Pure.

import type { Edit, Wanted } from './types';
import { parseValue, sameValue, type Declaration } from './values';
import type { VarView } from './vars';

/** Drafts kept at once; one PATCH carries them all. */
export const DRAFTS_MAX = 1_000;

export interface Draft {
  name: string;
  type: string;
  /** As typed; null = unset, back to the build's default. */
  text: string | null;
  /** The wanted value's revision when the edit was begun; 0 when there was none. */
  baseRev: number;
  /** What was wanted or in force then, for "9.8 -> 3.0". */
  from: string;
  /** Why it cannot be saved as it is: own check or the server's answer. */
  error: string | null;
  saving: boolean;
}

export type Drafts = ReadonlyMap<string, Draft>;

export function wantedRev(view: Pick<VarView, 'wanted'>): number {
  return view.wanted?.rev ?? 0;
}

/** The drafts after `text` was typed for a variable; typing the wanted value again drops the draft. */
export function typed(drafts: Drafts, view: VarView, from: string, text: string | null): Drafts {
  const next = new Map(drafts);
  const old = drafts.get(view.name);
  const declared: Declaration = view.declaration ?? {};
  const same =
    text === null ? view.wanted === null : view.wanted !== null && sameValue(view.type, text, view.wanted.value, declared.bits);
  const unchanged = view.wanted === null && text !== null && text === from;
  if ((same || unchanged) && (!old || old.baseRev === wantedRev(view))) {
    next.delete(view.name);
    return next;
  }
  if (!old && DRAFTS_MAX <= drafts.size) return drafts;
  const parsed = text === null ? null : parseValue(view.type, text, declared);
  next.set(view.name, {
    name: view.name,
    type: view.type,
    text,
    baseRev: old?.baseRev ?? wantedRev(view),
    from: old?.from ?? from,
    error: parsed && !parsed.ok ? parsed.error : null,
    saving: false,
  });
  return next;
}

export function dropped(drafts: Drafts, names: readonly string[]): Drafts {
  const next = new Map(drafts);
  for (const name of names) next.delete(name);
  return next;
}

export function changed(drafts: Drafts, names: readonly string[], change: Partial<Draft>): Drafts {
  const next = new Map(drafts);
  for (const name of names) {
    const draft = next.get(name);
    if (draft) next.set(name, { ...draft, ...change });
  }
  return next;
}

/** Somebody else's value that this draft would overwrite, or null. */
export function conflictOf(draft: Draft, wanted: Wanted | null | undefined): { theirs: Wanted | null } | null {
  const rev = wanted?.rev ?? 0;
  if (rev === draft.baseRev) return null;
  if (wanted && draft.text !== null && sameValue(draft.type, wanted.value, draft.text)) return null;
  if (!wanted && draft.text === null) return null;
  return { theirs: wanted ?? null };
}

/** Drafts that can be sent: no error, no open conflict, not under way. */
export function ready(drafts: Drafts, wanted: ReadonlyMap<string, Wanted>): Draft[] {
  return [...drafts.values()].filter(
    (draft) => draft.error === null && !draft.saving && conflictOf(draft, wanted.get(draft.name)) === null,
  );
}

/** The edit a draft becomes, with its value in canonical form. */
export function editOf(draft: Draft, declared: Declaration = {}): Edit {
  if (draft.text === null) return { name: draft.name, scope: 'all', unset: true };
  const parsed = parseValue(draft.type, draft.text, declared);
  const value = parsed.ok ? parsed.text : draft.text;
  return { name: draft.name, type: draft.type, value, scope: 'all' };
}

/** The index in `edits[3].value`, or null when the field is another one. */
export function editIndex(field: string | undefined): number | null {
  const found = /^edits\[(\d+)\]/.exec(field ?? '');
  return found ? Number(found[1]) : null;
}
