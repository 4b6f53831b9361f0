// What keeps itself current replaces its links: whoever had one in focus, by keyboard, gets the new one of the same
// address. A press of the mouse gives up the claim.
(() => {
  let held = null;
  document.addEventListener("focusin", (event) => {
    held = event.target.closest("#content a[href]")?.getAttribute("href") ?? null;
  });
  document.addEventListener("pointerdown", () => { held = null; });
  new MutationObserver(() => {
    if (held === null || document.activeElement !== document.body) return;
    document.querySelector(`#content a[href="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
