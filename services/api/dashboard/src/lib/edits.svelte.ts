// Drafts on the screen, and how they are saved: one PATCH with the revision they were made on.
// What is refused stays a draft. Whether a device applied it is not decided here.

import { ApiError, patchVars } from './api';
import { changed, dropped, editIndex, editOf, ready, typed, type Draft, type Drafts } from './drafts';
import type { Edit, Wanted } from './types';
import type { VarsModel, VarView } from './vars';

/** Tries of one save when other people's edits of *other* variables came in between. */
const SAVE_TRIES_MAX = 4;

export interface Notice {
  text: string;
  tone: 'good' | 'bad';
  undo: (() => void) | null;
}

export class Edits {
  drafts: Drafts = $state.raw(new Map());
  notice: Notice | null = $state.raw(null);

  #key: string;
  #vars: VarsModel;
  #touched: () => void;

  constructor(key: string, vars: VarsModel, touched: () => void) {
    this.#key = key;
    this.#vars = vars;
    this.#touched = touched;
  }

  type(view: VarView, from: string, text: string | null): void {
    this.drafts = typed(this.drafts, view, from, text);
  }

  drop(names: readonly string[]): void {
    this.drafts = dropped(this.drafts, names);
  }

  /** Keeps my value over theirs: the draft now builds on what they saved. */
  keepMine(name: string): void {
    const wanted = this.#vars.wanted.get(name);
    this.drafts = changed(this.drafts, [name], { baseRev: wanted?.rev ?? 0, from: wanted?.value ?? '' });
  }

  /** Drafts that Save All would send. */
  get ready(): Draft[] {
    return ready(this.drafts, this.#vars.wanted);
  }

  saveAll(): Promise<void> {
    return this.#save(this.ready);
  }

  save(name: string): Promise<void> {
    return this.#save(this.ready.filter((draft) => draft.name === name));
  }

  /** Sends edits that have no row yet. Throws what the server says. */
  async send(edits: Edit[]): Promise<void> {
    const before = edits.map((edit) => this.#vars.wanted.get(edit.name) ?? null);
    const revision = await this.#patch(edits);
    this.#vars.accepted(edits, revision);
    this.#touched();
    this.#saved(edits, before, revision);
  }

  dismiss(): void {
    this.notice = null;
  }

  async #save(drafts: Draft[]): Promise<void> {
    if (drafts.length === 0) return;
    const names = drafts.map((draft) => draft.name);
    const edits = drafts.map((draft) => editOf(draft));
    this.drafts = changed(this.drafts, names, { saving: true, error: null });
    try {
      await this.send(edits);
      this.#drop(drafts);
    } catch (error) {
      this.drafts = changed(this.drafts, names, { saving: false });
      this.#refusedBy(error, names);
    }
  }

  /** Drops what was saved, unless it was typed on meanwhile. */
  #drop(saved: Draft[]): void {
    const names = saved.filter((draft) => this.drafts.get(draft.name)?.text === draft.text).map((draft) => draft.name);
    this.drafts = dropped(this.drafts, names);
  }

  async #patch(edits: Edit[]): Promise<number> {
    for (let attempt = 1; ; attempt++) {
      try {
        const answer = await patchVars(this.#key, { edits, if_revision: this.#vars.revision });
        return answer.revision;
      } catch (error) {
        if (!(error instanceof ApiError) || error.code !== 'conflict') throw error;
        const others = this.#learn(error);
        const mine = edits.some((edit) => others.includes(edit.name));
        if (mine || others.length === 0 || SAVE_TRIES_MAX <= attempt) throw error;
      }
    }
  }

  /** Takes over what a conflict tells; the names that changed are returned. */
  #learn(error: ApiError): string[] {
    const { revision, changed: others = [] } = error.problem;
    for (const other of others as (Wanted & { unset?: true })[]) {
      if (other.unset) this.#vars.wanted.delete(other.name);
      else this.#vars.wanted.set(other.name, other);
    }
    if (revision !== undefined) this.#vars.revision = Math.max(this.#vars.revision, revision);
    this.#touched();
    return others.map((other) => other.name);
  }

  #refusedBy(error: unknown, names: string[]): void {
    const text = error instanceof Error ? error.message : 'not saved';
    if (error instanceof ApiError && error.code === 'conflict') return; // The rows show it.
    const index = error instanceof ApiError ? editIndex(error.problem.field) : null;
    const name = index === null ? undefined : names[index];
    if (name !== undefined) this.drafts = changed(this.drafts, [name], { error: text });
    else this.notice = { text: `Not saved: ${text}`, tone: 'bad', undo: null };
  }

  #saved(edits: Edit[], before: (Wanted | null)[], revision: number): void {
    const what = edits.length === 1 ? edits[0]?.name : `${edits.length} variables`;
    const back: Edit[] = edits.map((edit, i) => {
      const old = before[i];
      if (!old) return { name: edit.name, scope: 'all', unset: true };
      const known: Edit = { name: edit.name, value: old.value, scope: 'all' };
      return old.type === undefined ? known : { ...known, type: old.type };
    });
    const undo = () => {
      this.notice = null;
      this.send(back).catch((error: unknown) => this.#refusedBy(error, []));
    };
    this.notice = { text: `Saved ${what} as revision ${revision}`, tone: 'good', undo };
  }
}
