// A value that tells its readers when it changes, and the hook with which a view reads it.
import { useEffect, useState } from "./vendor/htm-preact-3.1.1.js";

export function signal(value) {
  const readers = new Set();
  return {
    get: () => value,
    set(next) {
      if (next === value) return;
      value = next;
      readers.forEach((reader) => reader(value));
    },
    subscribe(reader) {
      readers.add(reader);
      return () => readers.delete(reader);
    },
  };
}

export function useSignal(source) {
  const [value, setValue] = useState(source.get());
  useEffect(() => {
    setValue(source.get());
    return source.subscribe(setValue);
  }, [source]);
  return value;
}

// Runs a request now and every `seconds` while the view is shown; keeps the last answer when one fails.
export function usePolling(load, seconds, keys = []) {
  const [state, setState] = useState({ value: null, error: null, since: null, loading: true });
  useEffect(() => {
    let ended = false;
    let timer;
    setState((before) => ({ ...before, loading: true }));
    const round = async () => {
      try {
        const value = await load();
        if (!ended) setState({ value, error: null, since: null, loading: false });
      } catch (error) {
        if (!ended) setState((before) => ({ value: before.value, error, since: before.since ?? new Date(), loading: false }));
      }
      if (!ended && seconds) timer = setTimeout(round, seconds * 1000);
    };
    round();
    return () => {
      ended = true;
      clearTimeout(timer);
    };
  }, keys);
  return state;
}
