"""Shows why training stalls, and proves the fix."""
