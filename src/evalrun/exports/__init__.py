"""What a sweep came to in the formats of others: tables, Every Eval Ever, Hugging Face, Inspect, OpenLineage,
Croissant. Figures are those of `run.json`; nothing is computed here."""
