// The project's key: its form, where it is remembered, and how it comes in with the address.
// The only file that touches web storage for it.

const STORED_AS = 'observer.key';
const KEY_FORM = /^[A-Za-z0-9_-]{12}$/;

export function isKey(text: string): boolean {
  return KEY_FORM.test(text);
}

/** The key of `#key=…` or `?key=…`, or null. */
export function keyInAddress(search: string, hash: string): string | null {
  const fromHash = /^#\/?\??key=([^&]*)/.exec(hash)?.[1];
  const key = fromHash ?? new URLSearchParams(search).get('key');
  return key !== null && key !== undefined && key !== '' ? decodeURIComponent(key) : null;
}

/** Storage can be switched off in the browser; then the key lives as long as the page. */
function attempt<T>(run: () => T): T | null {
  try {
    return run();
  } catch {
    return null;
  }
}

export function storedKey(): string | null {
  const key = attempt(() => sessionStorage.getItem(STORED_AS) ?? localStorage.getItem(STORED_AS));
  return key !== null && isKey(key) ? key : null;
}

/** Keeps the key for this tab, or with `remember` for this browser. */
export function storeKey(key: string, remember: boolean): void {
  forgetKey();
  attempt(() => (remember ? localStorage : sessionStorage).setItem(STORED_AS, key));
}

export function forgetKey(): void {
  attempt(() => sessionStorage.removeItem(STORED_AS));
  attempt(() => localStorage.removeItem(STORED_AS));
}
