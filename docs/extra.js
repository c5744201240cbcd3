// What the theme leaves undone for readers who use a keyboard or a screen reader.
function mend() {
  // The copy button of each block stands in a <nav>. None of them is a landmark.
  for (const nav of document.querySelectorAll("nav.md-code__nav:not([role])")) {
    nav.setAttribute("role", "presentation");
  }
  // A wide table scrolls by itself, so it has to take the focus.
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])")) {
    box.setAttribute("tabindex", "0");
  }
}

new MutationObserver(mend).observe(document.documentElement, { childList: true, subtree: true });
mend();
