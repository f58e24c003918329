"""Floor 3: find the sites that hold a piece of knowledge."""

from .attribution import attribution
from .circuit import Circuit, Edge
from .control import random_sites
from .eap import dimension_scores, eap, eap_scores, means, node_scores, zeros
from .eap_ig import eap_ig, eap_ig_scores
from .edge_patching import edge_patching
from .exact import Agreement, agreement, patching
from .knowledge_neurons import (
    coarse_neurons,
    knowledge_neuron_scores,
    knowledge_neurons,
    neuron_activations,
    refined_neurons,
    scaled_neurons,
)
from .localization import Localization

__all__ = [
    "Agreement",
    "Circuit",
    "Edge",
    "Localization",
    "agreement",
    "attribution",
    "coarse_neurons",
    "dimension_scores",
    "eap",
    "eap_ig",
    "eap_ig_scores",
    "eap_scores",
    "edge_patching",
    "knowledge_neuron_scores",
    "knowledge_neurons",
    "means",
    "neuron_activations",
    "node_scores",
    "patching",
    "random_sites",
    "refined_neurons",
    "scaled_neurons",
    "zeros",
]
