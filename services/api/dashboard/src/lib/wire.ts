// The wire protocol's lines, ready to paste into a shell with the user's own key. Text only.

import type { ServerInfo } from './types';

export interface Address {
  host: string;
  port: number;
}

/** Where a game connects: what the server says, or this page's host when it listens everywhere. */
export function gameAddress(server: ServerInfo | null, pageHost: string): Address {
  const game = server?.game ?? { host: pageHost, port: 6667 };
  const everywhere = ['0.0.0.0', '::', '[::]', ''].includes(game.host);
  return { host: everywhere ? pageHost : game.host, port: game.port };
}

/** Base64 of the UTF-8 form, as the wire wants it. */
export function base64(text: string): string {
  let binary = '';
  for (const byte of new TextEncoder().encode(text)) binary += String.fromCharCode(byte);
  return btoa(binary);
}

export const SAMPLE_LOG = '[{"message":"hello","level":"info"}]';
export const SAMPLE_VARS = '[{"name":"gravity","type":"float","value":"9.8","min":0,"max":20}]';

/** `printf '…' | nc host port`: lines must be free of quotes, percent signs and backslashes. */
export function oneShot(lines: readonly string[], at: Address): string {
  return `printf '${lines.map((line) => `${line}\\n`).join('')}' | nc ${at.host} ${at.port}`;
}

export function interactive(at: Address): string {
  return `nc ${at.host} ${at.port}`;
}
