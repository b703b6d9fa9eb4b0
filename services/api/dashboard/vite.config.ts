// Builds the page into dist/: one index.html and hashed files under assets/, nothing inline.
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

/** Where `npm run dev` and `npm run mock` meet; a real server is chosen with OBSERVER_API. */
const api = process.env.OBSERVER_API ?? 'http://127.0.0.1:8090';

export default defineConfig({
  plugins: [svelte()],
  build: {
    target: 'es2023',
    // The page is served with `default-src 'self'`: neither data: images nor inline scripts work.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    proxy: {
      '/api': { target: api, ws: true },
      '/users': api,
    },
  },
});
