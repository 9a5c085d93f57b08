"""Read and write PEFT adapter folders with numpy alone."""

from rsoup.adapters.adapter import Adapter, Provenance
from rsoup.adapters.config import AdapterConfig
from rsoup.adapters.layers import Layer, Place
from rsoup.adapters.reading import read_adapter
from rsoup.adapters.writing import write_adapter

__all__ = ["Adapter", "AdapterConfig", "Layer", "Place", "Provenance", "read_adapter", "write_adapter"]
