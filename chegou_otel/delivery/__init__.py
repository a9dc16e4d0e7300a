"""From an encoded frame to an accepted request: recorder, segments, courier, ledger."""
