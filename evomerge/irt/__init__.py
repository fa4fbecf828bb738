"""Pure item response theory: curves, ability, calibration, anchors, performance."""
