"""An expert that understands points: LiteMedSAM's prompt encoder and mask decoder, tuned on boxes and points."""
