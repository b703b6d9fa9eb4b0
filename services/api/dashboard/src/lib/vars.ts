// What is known of a project's variables: wanted values, and what each device declared and reported.
// Merges snapshots and frames; says what one row shows. No drafts (see drafts.ts), no receipts
// (see receipts.ts), no I/O.

import type { DeviceInfo, DeviceVars, Frame, Receipt, Reported, VarsSnapshot, Wanted } from './types';
import { sameValue } from './values';

/** Devices kept; a project with more shows the first ones and says so. */
export const DEVICES_MAX = 2_000;

export interface Device extends DeviceInfo {
  reported: Map<string, Reported>;
  states: Map<string, Receipt>;
}

/** One device's part of a variable's row. */
export interface DeviceValue {
  device: string;
  label: string;
  online: boolean;
  /** It left for good: see isGone. */
  gone: boolean;
  value: string | undefined;
  receipt: Receipt | undefined;
  declared: boolean;
}

/** All that a row of the Variables pane needs to know. */
export interface VarView {
  name: string;
  type: string;
  group: string;
  declaration: Reported | null;
  wanted: Wanted | null;
  devices: DeviceValue[];
  /** Devices differ in the declared type. */
  mixed: boolean;
}

export class VarsModel {
  revision = 0;
  epoch = '';
  wanted = new Map<string, Wanted>();
  devices = new Map<string, Device>();
  /** Devices that did not fit. */
  devicesDropped = 0;

  replace(snapshot: VarsSnapshot): void {
    this.revision = snapshot.revision;
    this.epoch = snapshot.epoch;
    this.wanted = new Map(snapshot.wanted.map((wanted) => [wanted.name, wanted]));
    this.devices = new Map();
    this.devicesDropped = 0;
    for (const device of snapshot.devices) this.#mergeDevice(device);
  }

  /** Merges a `vars` frame. False: it is of another epoch, and a new snapshot is needed. */
  mergeVars(frame: Extract<Frame, { type: 'vars' }>): boolean {
    if (frame.epoch !== this.epoch) return false;
    if (frame.wanted && this.revision <= frame.revision) {
      this.wanted = new Map(frame.wanted.map((wanted) => [wanted.name, wanted]));
    }
    this.revision = Math.max(this.revision, frame.revision);
    for (const device of frame.devices ?? []) this.#mergeDevice(device);
    return true;
  }

  mergeDevices(frame: Extract<Frame, { type: 'devices' }>): void {
    for (const device of frame.devices) this.#mergeDevice(device);
    for (const id of frame.removed ?? []) this.devices.delete(id);
  }

  /** Takes note of an edit that the server accepted; receipts of older revisions no longer count. */
  accepted(edits: { name: string; type?: string; value?: string; unset?: true }[], revision: number): void {
    for (const edit of edits) {
      const known = this.wanted.get(edit.name);
      if (known && revision <= known.rev) continue; // A frame was faster.
      if (edit.unset) this.wanted.delete(edit.name);
      else {
        const type = edit.type ?? known?.type;
        const wanted: Wanted = { name: edit.name, value: edit.value ?? '', rev: revision, scope: 'all' };
        this.wanted.set(edit.name, type === undefined ? wanted : { ...wanted, type });
      }
    }
    this.revision = Math.max(this.revision, revision);
  }

  get online(): number {
    let count = 0;
    for (const device of this.devices.values()) if (device.online) count += 1;
    return count;
  }

  /** Devices that are there or will come back. */
  get expected(): number {
    let count = 0;
    for (const device of this.devices.values()) if (!isGone(device)) count += 1;
    return count;
  }

  get declares(): boolean {
    for (const device of this.devices.values()) if (0 < device.reported.size) return true;
    return false;
  }

  #mergeDevice(change: Partial<DeviceVars>): void {
    const id = change.device;
    if (id === undefined) return;
    let device = this.devices.get(id);
    if (!device) {
      if (DEVICES_MAX <= this.devices.size) {
        this.devicesDropped += 1;
        return;
      }
      device = { device: id, online: false, reported: new Map(), states: new Map() };
    }
    const { reported, states, ...info } = change;
    // A new object, so that a list drawn from it sees the change.
    device = { ...device, ...info };
    this.devices.set(id, device);
    for (const variable of reported ?? []) {
      if (variable.gone) device.reported.delete(variable.name);
      else device.reported.set(variable.name, { ...device.reported.get(variable.name), ...variable });
    }
    for (const [name, receipt] of Object.entries(states ?? {})) device.states.set(name, receipt);
  }
}

/** Ids that the server made for one socket begin so; a device that names itself keeps its own. */
const SOCKET_ID = 's-';

/** It left and will not come back: its id was made for its socket, and the next socket gets another. */
export function isGone(device: { device: string; online: boolean }): boolean {
  return !device.online && device.device.startsWith(SOCKET_ID);
}

export function deviceLabel(device: { device: string; name?: string | null }): string {
  return device.name || device.device;
}

/** Rows of the Variables pane: of one device, or of all with `selected` null. */
export function viewsOf(model: VarsModel, selected: string | null): VarView[] {
  const devices = [...model.devices.values()].filter(
    (device) => selected === null || device.device === selected,
  );
  const names = new Set<string>(model.wanted.keys());
  for (const device of devices) for (const name of device.reported.keys()) names.add(name);
  const views: VarView[] = [];
  for (const name of names) {
    const view = viewOf(model, devices, name);
    if (view.type !== 'command') views.push(view);
  }
  return views.sort(byGroupAndOrder);
}

function viewOf(model: VarsModel, devices: Device[], name: string): VarView {
  const wanted = model.wanted.get(name) ?? null;
  const online: Reported[] = [];
  const offline: Reported[] = [];
  const values: DeviceValue[] = [];
  for (const device of devices) {
    const reported = device.reported.get(name);
    if (reported) (device.online ? online : offline).push(reported);
    values.push({
      device: device.device,
      label: deviceLabel(device),
      online: device.online,
      gone: isGone(device),
      value: reported?.value,
      receipt: device.states.get(name),
      declared: reported !== undefined,
    });
  }
  const counted = 0 < online.length ? online : offline;
  const declaration = declarationOf(counted);
  const mixed = counted.some((reported) => reported.type !== counted[0]?.type);
  return {
    name,
    type: declaration?.type ?? wanted?.type ?? 'string',
    group: declaration?.group ?? '',
    declaration,
    wanted,
    devices: values,
    mixed,
  };
}

/** The richest declaration, with what it leaves out taken from others of its type. */
function declarationOf(reports: readonly Reported[]): Reported | null {
  let richest: Reported | null = null;
  let most = -1;
  for (const reported of reports) {
    const fields = said(reported).length;
    if (fields <= most) continue;
    richest = reported;
    most = fields;
  }
  if (!richest) return null;
  const merged = { ...richest };
  for (const reported of reports) {
    const other = reported.type !== undefined && merged.type !== undefined && reported.type !== merged.type;
    if (reported === richest || other) continue;
    const missing = said(reported).filter(([field]) => (merged[field as keyof Reported] ?? null) === null);
    Object.assign(merged, Object.fromEntries(missing));
  }
  return merged;
}

/** The fields that say something. */
function said(reported: Reported): [string, unknown][] {
  return Object.entries(reported).filter(([, value]) => value !== undefined && value !== null && value !== '');
}

function byGroupAndOrder(a: VarView, b: VarView): number {
  const undeclared = Number(a.declaration === null) - Number(b.declaration === null);
  if (undeclared !== 0) return undeclared;
  if (a.group !== b.group) return a.group < b.group ? -1 : 1;
  const order = (a.declaration?.order ?? 0) - (b.declaration?.order ?? 0);
  if (order !== 0) return order;
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}

/** The value that devices have in force: one when all that declare it agree, else each. */
export function inForce(view: VarView): { values: string[]; asOf: 'now' | 'before' } {
  const declaring = view.devices.filter((device) => device.value !== undefined);
  const online = declaring.filter((device) => device.online);
  const known = declaring.filter((device) => !device.gone);
  const counted = 0 < online.length ? online : 0 < known.length ? known : declaring;
  const values: string[] = [];
  for (const { value } of counted) if (value !== undefined && !values.includes(value)) values.push(value);
  return { values, asOf: 0 < online.length ? 'now' : 'before' };
}

/** Devices differ and no value is wanted: no single value speaks for the row. */
export function differing(view: VarView, values: readonly string[]): boolean {
  if (view.wanted !== null) return false;
  return values.some((value) => !sameValue(view.type, value, values[0] ?? '', view.declaration?.bits));
}

/** A variable that can be edited, for "change … on the right"; one that a device online has, if any. */
export function editableName(model: VarsModel): string | null {
  const views = viewsOf(model, null).filter((view) => view.declaration !== null && view.declaration.access !== 'watch');
  const there = views.find((view) => view.devices.some((device) => device.online && device.declared));
  return (there ?? views[0])?.name ?? null;
}
