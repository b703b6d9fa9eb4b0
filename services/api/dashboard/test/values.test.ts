import { describe, expect, it } from 'vitest';
import { parseValue, sameValue, type Declaration } from '../src/lib/values';

function check(type: string, typed: string, expected: string, declared: Declaration = {}) {
  const parsed = parseValue(type, typed, declared);
  expect(parsed.ok ? parsed.text : `! ${parsed.error}`).toBe(expected);
}

describe('values', () => {
  it('are read into one canonical text', () => {
    check('boolean', 'True', 'true');
    check('boolean', '0', 'false');
    check('integer', ' +7 ', '7');
    check('integer', '9223372036854775807', '9223372036854775807');
    check('float', '3', '3.0');
    check('float', '.5', '0.5');
    check('float', '1e3', '1000.0');
    check('color', '#F84', '#ff8844ff');
    check('color', 'ff884480', '#ff884480');
    check('vector', '[1, 2.5]', '[1,2.5]');
    check('json', '{ "a" : 1 }', '{"a":1}');
    check('string', ' as it is ', ' as it is ');
    check('some_later_type', 'kept', 'kept');
  });

  it('that cannot be read say why', () => {
    check('boolean', 'yes', '! must be true or false');
    check('integer', '1.5', '! must be a whole number');
    check('integer', '9223372036854775808', '! does not fit into 64 bits');
    check('float', 'NaN', '! must be a number');
    check('float', '1e999', '! must be a number');
    check('float', '1,5', '! must be a number');
    check('color', 'red', '! must be #rrggbb or #rrggbbaa');
    check('vector', '[1]', '! must be 2 to 4 numbers, as [x,y]');
    check('enum', 'c', '! is not one of the options', { options: ['a', { value: 'b' }] });
    check('integer', '11', '! must be at most 10', { min: 0, max: '10' });
    check('float', '-0.1', '! must be at least 0', { min: 0 });
  });

  it('are equal when they mean the same', () => {
    expect(sameValue('float', '3', '3.0')).toBe(true);
    expect(sameValue('float', '0.1', '0.10000000149011612', 32)).toBe(true);
    expect(sameValue('float', '0.1', '0.10000000149011612')).toBe(false);
    expect(sameValue('float', '-0.0', '0')).toBe(true);
    expect(sameValue('integer', '9007199254740993', '9007199254740992')).toBe(false);
    expect(sameValue('boolean', 'True', '1')).toBe(true);
    expect(sameValue('color', '#fff', '#FFFFFFFF')).toBe(true);
    expect(sameValue('json', '{"a":1,"b":[2]}', '{ "b":[2], "a":1 }')).toBe(true);
    expect(sameValue('string', '1', '1.0')).toBe(false);
  });
});
