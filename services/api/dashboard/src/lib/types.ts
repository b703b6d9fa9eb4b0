// The shapes of the HTTP and WebSocket contract, as the server sends them. No behaviour here.

export const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const;
export type Level = (typeof LEVELS)[number];

/** What the server adds to a record; the game's own fields stand beside it, unchanged. */
export interface RecordMeta {
  id: string;
  key: string;
  device: string;
  session?: string;
  seq?: number;
  received: string;
  rev?: number;
  level: Level;
  tag?: string;
  time?: string;
  message?: string;
}

export type LogRecord = { observer: RecordMeta } & Record<string, unknown>;

export interface Page {
  items: LogRecord[];
  next: string | null;
}

export interface Wanted {
  name: string;
  type?: string;
  value: string;
  scope?: string;
  rev: number;
  at?: string;
  actor?: string;
}

export type EnumOption = string | { value: string; label?: string };

/** A variable as a game declared it, with its value in force. */
export interface Reported {
  name: string;
  type?: string;
  value?: string;
  at?: string;
  default?: string;
  min?: number | string;
  max?: number | string;
  step?: number | string;
  options?: EnumOption[];
  unit?: string;
  group?: string;
  order?: number;
  help?: string;
  access?: string;
  applies?: string;
  bits?: number;
  gone?: boolean;
}

export type ReceiptState =
  | 'pending'
  | 'sent'
  | 'applied'
  | 'waiting'
  | 'offline'
  | 'no_receipt'
  | 'adjusted'
  | 'rejected'
  /** Never sent: said here of a device that will not come back. */
  | 'gone';

export interface Receipt {
  state: ReceiptState;
  ms?: number;
  rev?: number;
  value?: string;
  error?: string;
}

export interface DeviceInfo {
  device: string;
  name?: string | null;
  online: boolean;
  since?: string;
  session?: string | null;
  rev?: number;
}

export interface DeviceVars extends DeviceInfo {
  reported?: Reported[];
  states?: Record<string, Receipt>;
}

export interface VarsSnapshot {
  revision: number;
  epoch: string;
  wanted: Wanted[];
  devices: DeviceVars[];
}

export interface ServerInfo {
  name: string;
  version: string;
  game: { host: string; port: number };
  profile?: string;
  form?: string;
}

export type Edit =
  | { name: string; type?: string; value: string; scope: 'all' }
  | { name: string; scope: 'all'; unset: true };

export interface EditRequest {
  edits: Edit[];
  if_revision?: number;
  note?: string;
}

/** An error of the API: problem+json. */
export interface Problem {
  status: number;
  code: string;
  title?: string;
  detail?: string;
  field?: string;
  revision?: number;
  changed?: Wanted[];
}

export type Frame =
  | { type: 'hello'; cursor: string | null; project: string; revision: number; epoch: string }
  | { type: 'resumed'; cursor: string }
  | { type: 'reset'; cursor: string }
  | { type: 'logs'; cursor: string; items: LogRecord[] }
  | {
      type: 'vars';
      cursor: string;
      revision: number;
      epoch: string;
      wanted?: Wanted[];
      devices?: Partial<DeviceVars>[];
    }
  | { type: 'devices'; cursor: string; devices: DeviceInfo[]; removed?: string[] }
  | { type: 'gap'; cursor: string; count: number; reason: string };
