// What a row may say about an edit: only what devices' receipts say. Pure; a missing receipt is
// never read as a good one.

import type { Receipt } from './types';
import { isGone, type DeviceValue, type VarsModel, type VarView } from './vars';

export type Tone = 'none' | 'good' | 'busy' | 'warn' | 'bad' | 'quiet';

export interface Summary {
  tone: Tone;
  /** Short state in words: "applied in 4 ms". */
  text: string;
  /** "7/12", of devices online and of those that will come back, or nothing when none is online. */
  count: string;
  /** Whole sentence for the tooltip and for screen readers. */
  detail: string;
}

/** One device's receipt in words, for the revision that is wanted now. */
export function receiptOf(value: DeviceValue, wantedRev: number): Receipt {
  if (!value.online) return { state: value.gone ? 'gone' : 'offline' };
  const receipt = value.receipt;
  if (!receipt) return value.declared ? { state: 'pending' } : { state: 'waiting' };
  // A receipt of an older revision says nothing about this one.
  const old = receipt.rev !== undefined && receipt.rev < wantedRev;
  if (old) return { state: 'pending' };
  // What it has is what it reported; the receipt alone need not say it.
  return receipt.state === 'adjusted' && value.value !== undefined ? { ...receipt, value: value.value } : receipt;
}

export function receiptText(receipt: Receipt): string {
  switch (receipt.state) {
    case 'applied':
      return receipt.ms === undefined ? 'applied' : `applied in ${duration(receipt.ms)}`;
    case 'pending':
      return 'pending';
    case 'sent':
      return 'sent';
    case 'waiting':
      return 'waiting: not declared yet';
    case 'offline':
      return 'offline, gets it at next start';
    case 'no_receipt':
      return 'no receipt';
    case 'gone':
      return 'gone';
    case 'adjusted':
      return `device has ${receipt.value ?? 'another value'}`;
    case 'rejected':
      return receipt.error ? `rejected: ${receipt.error}` : 'rejected';
  }
}

export function receiptTone(receipt: Receipt): Tone {
  switch (receipt.state) {
    case 'applied':
      return 'good';
    case 'pending':
    case 'sent':
      return 'busy';
    case 'adjusted':
    case 'no_receipt':
      return 'warn';
    case 'rejected':
      return 'bad';
    case 'waiting':
    case 'offline':
    case 'gone':
      return 'quiet';
    default:
      return 'warn'; // A state of a later release: shown as it is, and never as good.
  }
}

export function duration(ms: number): string {
  if (ms < 1) return '<1 ms';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(1)} s`;
}

const WORST: Receipt['state'][] = [
  'rejected',
  'no_receipt',
  'adjusted',
  'pending',
  'sent',
  'waiting',
];

/** The row's state over all devices in view. */
export function summarize(view: VarView): Summary {
  const wanted = view.wanted;
  if (!wanted) return { tone: 'none', text: '', count: '', detail: 'no value is wanted from here' };
  const expected = view.devices.filter((device) => !device.gone);
  if (expected.length === 0) {
    return { tone: 'quiet', text: 'waiting', count: '', detail: 'no device is there: the next one gets it' };
  }
  const receipts = expected.map((device) => receiptOf(device, wanted.rev));
  const online = receipts.filter((receipt) => receipt.state !== 'offline');
  const offline = receipts.length - online.length;
  const later = offline === 0 ? '' : `, ${offline} offline, later`;
  if (online.length === 0) {
    return { tone: 'quiet', text: 'offline', count: '', detail: `offline, gets it at next start (${offline})` };
  }
  const applied = online.filter((receipt) => receipt.state === 'applied');
  const count = `${applied.length}/${receipts.length}`;
  const worst = worstOf(online);
  if (!worst) {
    const known = applied.map((receipt) => receipt.ms).filter((ms) => ms !== undefined);
    const slowest: Receipt = 0 < known.length ? { state: 'applied', ms: Math.max(...known) } : { state: 'applied' };
    const text = receiptText(slowest);
    return { tone: 'good', text, count, detail: `${text} on ${applied.length} of ${online.length} online${later}` };
  }
  const text = worst.state === 'waiting' ? 'waiting' : receiptText(worst);
  return {
    tone: receiptTone(worst),
    text,
    count,
    detail: `${receiptText(worst)}; applied on ${applied.length} of ${online.length} online${later}`,
  };
}

function worstOf(receipts: Receipt[]): Receipt | null {
  for (const state of WORST) {
    const found = receipts.find((receipt) => receipt.state === state);
    if (found) return found;
  }
  return receipts.find((receipt) => receipt.state !== 'applied') ?? null;
}

/** Whether any device has a wanted value by its receipt. */
export function anyApplied(model: VarsModel): boolean {
  for (const device of model.devices.values()) {
    for (const wanted of model.wanted.values()) {
      const value = device.reported.get(wanted.name)?.value;
      const receipt = device.states.get(wanted.name);
      const seen = { ...device, label: '', gone: isGone(device), value, receipt, declared: true };
      if (receiptOf(seen, wanted.rev).state === 'applied') return true;
    }
  }
  return false;
}
