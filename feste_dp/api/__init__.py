"""What `import feste_dp` offers: models as objects, and training as a loop. Imported when first used."""
