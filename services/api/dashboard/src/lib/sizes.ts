// Sizes of the panes, in pixels, remembered in this browser.

const STORED_AS = 'observer.sizes';

export interface Sizes {
  devices: number;
  vars: number;
  detail: number;
}

const DEFAULTS: Sizes = { devices: 220, vars: 400, detail: 260 };

export function loadSizes(): Sizes {
  try {
    const stored = JSON.parse(localStorage.getItem(STORED_AS) ?? '{}') as Partial<Record<keyof Sizes, unknown>>;
    const size = (name: keyof Sizes, min: number, max: number) => {
      const value = stored[name];
      return typeof value === 'number' && min <= value && value <= max ? value : DEFAULTS[name];
    };
    return { devices: size('devices', 160, 400), vars: size('vars', 300, 640), detail: size('detail', 120, 560) };
  } catch {
    return DEFAULTS;
  }
}

export function saveSizes(sizes: Sizes): void {
  try {
    localStorage.setItem(STORED_AS, JSON.stringify(sizes));
  } catch {
    // Without storage the sizes last as long as the page.
  }
}
