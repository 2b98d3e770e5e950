"""Speed, memory and parity measures: one `unclip bench` sub-command each."""
