import { describe, expect, it } from 'vitest';
import { conflictOf, dropped, editIndex, editOf, ready, typed, type Draft, type Drafts } from '../src/lib/drafts';
import { anyApplied, receiptText, summarize } from '../src/lib/receipts';
import type { Receipt, VarsSnapshot } from '../src/lib/types';
import { differing, editableName, inForce, isGone, VarsModel, viewsOf, type VarView } from '../src/lib/vars';

const SNAPSHOT: VarsSnapshot = {
  revision: 57,
  epoch: 'a1b2c3d4',
  wanted: [{ name: 'gravity', type: 'float', value: '3.0', scope: 'all', rev: 57 }],
  devices: [
    {
      device: 'd1',
      name: 'Anna-PC',
      online: true,
      reported: [{ name: 'gravity', type: 'float', value: '9.8', min: 0, max: 20 }],
      states: { gravity: { state: 'pending', rev: 57 } },
    },
  ],
};

function model(): VarsModel {
  const vars = new VarsModel();
  vars.replace(structuredClone(SNAPSHOT));
  return vars;
}

function gravity(vars: VarsModel, selected: string | null = null): VarView {
  return viewsOf(vars, selected).find((view) => view.name === 'gravity') as VarView;
}

function frame(vars: VarsModel, receipt: Receipt, value = '3.0', device = 'd1') {
  return vars.mergeVars({
    type: 'vars',
    cursor: 'c',
    revision: vars.revision,
    epoch: vars.epoch,
    devices: [{ device, reported: [{ name: 'gravity', value }], states: { gravity: receipt } }],
  });
}

describe('variables', () => {
  it('merge a report by name and keep the rest of the declaration', () => {
    const vars = model();
    expect(frame(vars, { state: 'applied', ms: 4, rev: 57 })).toBe(true);
    expect(gravity(vars).declaration).toMatchObject({ type: 'float', min: 0, max: 20, value: '3.0' });
  });

  it('of another epoch ask for a new snapshot', () => {
    const vars = model();
    const other = { type: 'vars', cursor: 'c', revision: 99, epoch: 'other', devices: [] } as const;
    expect(vars.mergeVars({ ...other, devices: [] })).toBe(false);
    expect(vars.revision).toBe(57);
  });

  it('show devices that differ as several values, and of one device its own', () => {
    const vars = model();
    vars.mergeDevices({ type: 'devices', cursor: 'c', devices: [{ device: 'd2', online: true }] });
    frame(vars, { state: 'applied', rev: 57 }, '5.0', 'd2');
    expect(inForce(gravity(vars)).values).toEqual(['9.8', '5.0']);
    expect(inForce(gravity(vars, 'd2')).values).toEqual(['5.0']);
  });

  it('take their declaration from devices online, whatever others say', () => {
    const vars = model();
    vars.mergeVars({
      ...{ type: 'vars', cursor: 'c', revision: 57, epoch: vars.epoch },
      devices: [
        { device: 'a', online: false, reported: [{ name: 'gravity', type: 'string', value: 'x', min: 1, max: 2, unit: 'old', group: 'Old' }] },
        { device: 'b', online: true, reported: [{ name: 'gravity', value: '2.0', unit: 'm/s²' }] },
      ],
    });
    expect(gravity(vars).declaration).toMatchObject({ type: 'float', min: 0, max: 20, unit: 'm/s²' });
    expect(gravity(vars).declaration?.group).toBeUndefined();
    expect(gravity(vars).type).toBe('float');
  });

  it('keep slider and unit when another device reports the bare value', () => {
    const vars = new VarsModel();
    const rich = { name: 'gravity', type: 'float', value: '1.0', min: 0, max: 20, unit: 'm', group: 'Physics' };
    vars.replace({
      ...structuredClone(SNAPSHOT),
      devices: [
        { device: 'a', online: true, reported: [{ name: 'gravity', type: 'float', value: '9.8' }] },
        { device: 'b', online: true, reported: [rich] },
        { device: 'c', online: true, reported: [{ name: 'gravity', type: 'string', value: '9', help: 'other' }] },
      ],
    });
    expect(gravity(vars).declaration).toEqual(rich);
    expect(gravity(vars).mixed).toBe(true);
  });

  it('differ only where no value is wanted and the values mean different things', () => {
    const vars = model();
    expect(differing(gravity(vars), ['1', '2'])).toBe(false);
    vars.wanted.clear();
    expect(differing(gravity(vars), ['1', '2'])).toBe(true);
    expect(differing(gravity(vars), ['1', '1.0'])).toBe(false);
    expect(differing(gravity(vars), [])).toBe(false);
  });

  it('name one that can be edited, of a device online first', () => {
    const vars = model();
    vars.replace({
      ...structuredClone(SNAPSHOT),
      devices: [
        { device: 'a', online: false, reported: [{ name: 'aa', value: '1' }] },
        { device: 'b', online: true, reported: [{ name: 'fps', value: '1', access: 'watch' }, { name: 'speed', value: '1' }] },
      ],
    });
    expect(editableName(vars)).toBe('speed');
    expect(editableName(new VarsModel())).toBeNull();
  });

  it('know a device that will not come back by its id', () => {
    expect(isGone({ device: 's-12', online: false })).toBe(true);
    expect(isGone({ device: 's-12', online: true })).toBe(false);
    expect(isGone({ device: 'pc-12', online: false })).toBe(false);
    const vars = model();
    const devices = [{ device: 's-1', online: false }, { device: 'pc', online: false }];
    vars.mergeDevices({ type: 'devices', cursor: 'c', devices });
    expect([vars.online, vars.expected, vars.devices.size]).toEqual([1, 2, 3]);
  });

  it('wanted from nobody yet come last', () => {
    const vars = model();
    vars.wanted.set('aaa', { name: 'aaa', value: '1', rev: 58 });
    expect(viewsOf(vars, null).map((view) => view.name)).toEqual(['gravity', 'aaa']);
  });

  it('an older list of wanted values does not replace a newer one', () => {
    const vars = model();
    vars.accepted([{ name: 'gravity', value: '4.0' }], 58);
    vars.mergeVars({ type: 'vars', cursor: 'c', revision: 57, epoch: vars.epoch, wanted: [] });
    expect(gravity(vars).wanted).toMatchObject({ value: '4.0', rev: 58, type: 'float' });
  });

  it('removed devices are gone', () => {
    const vars = model();
    vars.mergeDevices({ type: 'devices', cursor: 'c', devices: [], removed: ['d1'] });
    expect(vars.devices.size).toBe(0);
  });
});

describe('receipts', () => {
  function said(change: (vars: VarsModel) => void) {
    const vars = model();
    change(vars);
    const { tone, text, count } = summarize(gravity(vars));
    return [tone, text, count].join(' | ');
  }

  it('are green only when each device online sent one for this revision', () => {
    expect(said(() => undefined)).toBe('busy | pending | 0/1');
    expect(said((vars) => frame(vars, { state: 'applied', ms: 4, rev: 57 }))).toBe('good | applied in 4 ms | 1/1');
    expect(said((vars) => frame(vars, { state: 'applied', ms: 4, rev: 56 }))).toBe('busy | pending | 0/1');
    expect(
      said((vars) => {
        frame(vars, { state: 'applied', ms: 4, rev: 57 });
        vars.accepted([{ name: 'gravity', value: '4.0' }], 58);
      }),
    ).toBe('busy | pending | 0/1');
    expect(said((vars) => vars.devices.get('d1')?.states.clear())).toBe('busy | pending | 0/1');
  });

  it('of the worst device speak for the row', () => {
    expect(said((vars) => frame(vars, { state: 'no_receipt', rev: 57 }))).toBe('warn | no receipt | 0/1');
    expect(said((vars) => frame(vars, { state: 'rejected', error: 'max 20', rev: 57 }))).toBe('bad | rejected: max 20 | 0/1');
    expect(said((vars) => frame(vars, { state: 'adjusted', rev: 57 }, '20'))).toBe('warn | device has 20 | 0/1');
    expect(said((vars) => frame(vars, { state: 'adjusted', rev: 56 }, '20'))).toBe('busy | pending | 0/1');
    expect(
      said((vars) => {
        frame(vars, { state: 'applied', ms: 9, rev: 57 });
        vars.mergeDevices({ type: 'devices', cursor: 'c', devices: [{ device: 'd2', online: true }] });
      }),
    ).toBe('quiet | waiting | 1/2');
  });

  it('of a state that is not known are shown and never green', () => {
    const tone = said((vars) => frame(vars, { state: 'brand_new' as 'applied', rev: 57 })).split(' | ')[0];
    expect(tone).toBe('warn');
  });

  it('count devices that will come back, and leave out those that will not', () => {
    const join = (vars: VarsModel, device: string) => {
      frame(vars, { state: 'applied', ms: 4, rev: 57 });
      vars.mergeDevices({ type: 'devices', cursor: 'c', devices: [{ device, online: false }] });
    };
    expect(said((vars) => join(vars, 'pc-2'))).toBe('good | applied in 4 ms | 1/2');
    expect(said((vars) => join(vars, 's-2'))).toBe('good | applied in 4 ms | 1/1');
    expect(receiptText({ state: 'gone' })).toBe('gone');
  });

  it('are waited for when only devices are left that will not come back', () => {
    const vars = new VarsModel();
    vars.replace({ ...structuredClone(SNAPSHOT), devices: [{ device: 's-1', online: false }] });
    vars.wanted.set('gravity', { name: 'gravity', value: '1', rev: 58 });
    expect(summarize(gravity(vars))).toMatchObject({ tone: 'quiet', text: 'waiting', count: '' });
  });

  it('of any device say whether an edit was ever applied', () => {
    const vars = model();
    expect(anyApplied(vars)).toBe(false);
    frame(vars, { state: 'applied', rev: 57 });
    expect(anyApplied(vars)).toBe(true);
  });

  it('are not expected from devices that are offline', () => {
    const off = { type: 'devices' as const, cursor: 'c', devices: [{ device: 'd1', online: false }] };
    expect(said((vars) => vars.mergeDevices(off))).toBe('quiet | offline | ');
  });
});

describe('drafts', () => {
  const none: Drafts = new Map();
  const only = (drafts: Drafts) => drafts.get('gravity') as Draft;

  it('show from and to, and vanish when the wanted value is typed again', () => {
    const view = gravity(model());
    const drafts = typed(none, view, '3.0', '5');
    expect(only(drafts)).toMatchObject({ from: '3.0', text: '5', baseRev: 57, error: null });
    expect(typed(drafts, view, '3.0', '3').size).toBe(0);
  });

  it('out of bounds are kept, with the reason, and not sent', () => {
    const vars = model();
    const drafts = typed(none, gravity(vars), '3.0', '21');
    expect(only(drafts).error).toBe('must be at most 20');
    expect(ready(drafts, vars.wanted)).toEqual([]);
  });

  it('conflict with an edit made meanwhile, unless it is the same', () => {
    const vars = model();
    const drafts = typed(none, gravity(vars), '3.0', '5.0');
    expect(conflictOf(only(drafts), vars.wanted.get('gravity'))).toBeNull();
    vars.wanted.set('gravity', { name: 'gravity', value: '4.0', rev: 58, actor: 'Ben' });
    expect(conflictOf(only(drafts), vars.wanted.get('gravity'))?.theirs).toMatchObject({ value: '4.0' });
    expect(ready(drafts, vars.wanted)).toEqual([]);
    vars.wanted.set('gravity', { name: 'gravity', value: '5', rev: 59 });
    expect(conflictOf(only(drafts), vars.wanted.get('gravity'))).toBeNull();
  });

  it('become edits in canonical form', () => {
    const view = gravity(model());
    expect(editOf(only(typed(none, view, '3.0', '5')))).toEqual({ name: 'gravity', type: 'float', value: '5.0', scope: 'all' });
    expect(editOf(only(typed(none, view, '3.0', null)))).toEqual({ name: 'gravity', scope: 'all', unset: true });
  });

  it('are dropped by name', () => {
    expect(dropped(typed(none, gravity(model()), '3.0', '5'), ['gravity']).size).toBe(0);
  });

  it('are found by the field of a refusal', () => {
    expect(editIndex('edits[3].value')).toBe(3);
    expect(editIndex('note')).toBeNull();
    expect(editIndex(undefined)).toBeNull();
  });
});
