// Light, dark, or what the system says; kept for this browser.
import { signal } from "./store.js";

const KEY = "ess-theme";
export const theme = signal(localStorage.getItem(KEY) ?? "system");

function apply(value) {
  if (value === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = value;
}

export function nextTheme() {
  const order = ["system", "light", "dark"];
  const value = order[(order.indexOf(theme.get()) + 1) % order.length];
  if (value === "system") localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, value);
  apply(value);
  theme.set(value);
}

apply(theme.get());
