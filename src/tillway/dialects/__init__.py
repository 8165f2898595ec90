"""The source systems' own HTTP contracts. Each file is a thin door to the engine: no rule of money lives here."""
