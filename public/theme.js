/** Light or dark: as the system has it, or as the visitor chose. Runs before anything is shown. */
(() => {
  const SLOT = 'keyturn:theme';
  const system = matchMedia('(prefers-color-scheme: dark)');
  const root = document.documentElement;

  const kept = () => {
    try {
      return localStorage.getItem(SLOT);
    } catch { // no storage here
      return null;
    }
  };

  /** @param {boolean} dark */
  const keep = (dark) => {
    try {
      if (dark === system.matches) localStorage.removeItem(SLOT); // it follows the system again
      else localStorage.setItem(SLOT, dark ? 'dark' : 'light');
    } catch { /* then it is for this page only */ }
  };

  const isDark = () => (root.dataset.theme ? root.dataset.theme === 'dark' : system.matches);

  /** @param {string | null} theme */
  const apply = (theme) => {
    if (theme === 'dark' || theme === 'light') root.dataset.theme = theme;
    else delete root.dataset.theme;
    document.getElementById('theme')?.setAttribute('aria-checked', String(isDark()));
  };

  apply(kept());
  system.addEventListener('change', () => apply(kept()));
  addEventListener('storage', (event) => event.key === SLOT && apply(event.newValue));
  document.addEventListener('DOMContentLoaded', () => {
    apply(kept());
    document.getElementById('theme')?.addEventListener('click', () => {
      const dark = !isDark();
      keep(dark);
      apply(dark === system.matches ? null : dark ? 'dark' : 'light');
    });
  });
})();
