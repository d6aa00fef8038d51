"""What the Triton Python models import, and what starts the server. No torch."""
