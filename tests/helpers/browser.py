"""Pages in a real browser."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="pages are tested in Chromium: install it, and pip install playwright",
)
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update
--disable-sync""".split()
# Ratios of text to what lies behind it, as WCAG 2 counts them; the smallest on the page.
CONTRAST = """() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = text => numbers(text).slice(0, 3).reduce((sum, v, i) => sum + linear(v / 255) * [.2126, .7152, .0722][i], 0);
  const ground = element => {
    for (; element; element = element.parentElement) {
      const found = getComputedStyle(element).backgroundColor;
      if (numbers(found)[3] !== 0) return found;
    }
    return 'rgb(255, 255, 255)';
  };
  const ratio = element => {
    const [a, b] = [light(getComputedStyle(element).color), light(ground(element))];
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  };
  const has_text = element => [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  return Math.min(...[...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && has_text(e)).map(ratio));
}"""
