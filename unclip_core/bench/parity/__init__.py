"""How far Karlo is from diffusers and from kakaobrain's conventions, on small random models (`unclip bench parity`)."""
