"""Generation by vLLM: `engine` is a rank's side, `process` vLLM's own, which alone imports it."""
