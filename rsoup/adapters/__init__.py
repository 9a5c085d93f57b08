"""Read and write PEFT adapter folders with numpy alone."""

from rsoup.adapters.adapter import Adapter, Layer, Provenance
from rsoup.adapters.config import AdapterConfig
from rsoup.adapters.reading import read_adapter
from rsoup.adapters.writing import write_adapter

__all__ = ["Adapter", "AdapterConfig", "Layer", "Provenance", "read_adapter", "write_adapter"]
