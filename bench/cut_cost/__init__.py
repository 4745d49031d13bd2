"""What a cut of the window costs on real nodes, with and without a pre-warm, by the engine's own count."""
