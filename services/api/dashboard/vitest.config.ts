// Unit tests of src/lib run without a browser: nothing there touches the DOM.
import { defineConfig } from 'vitest/config';

export default defineConfig({ test: { include: ['test/**/*.test.ts'] } });
