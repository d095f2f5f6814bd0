"""What scripts/demo, scripts/gpu-check and tests/e2e share. Standard library only."""
