"""The PDK as plugins see it. For annotations: ``import kong_pdk.pdk.kong as kong``."""
