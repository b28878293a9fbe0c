"""Reports: systems side by side, as text, as one HTML page, and for machines."""
