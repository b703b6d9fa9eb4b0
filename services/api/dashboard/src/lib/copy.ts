// Puts text on the clipboard, also where the page is not a secure context (plain http in a LAN).

export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

function copyBySelection(text: string): boolean {
  const area = document.createElement('textarea');
  area.value = text;
  area.setAttribute('readonly', '');
  area.className = 'visually-hidden';
  document.body.append(area);
  area.select();
  // Deprecated, and the only way without a secure context.
  const done = document.execCommand('copy');
  area.remove();
  return done;
}
