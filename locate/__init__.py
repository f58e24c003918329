"""Floor 3: find the sites that hold a piece of knowledge."""

from .agreement import Agreement, agreement
from .atp_star import atp_star, query_key_scores
from .attribution import attribution
from .circuit import Circuit, Edge
from .control_sites import all_layer_sites, control_sites, other_relation_sites, random_sites
from .counterpart import substitutes
from .direct_logit import direct_logit
from .eap import dimension_scores, eap, eap_scores, means, node_scores, zeros
from .eap_ig import eap_ig, eap_ig_scores
from .edge_patching import edge_patching
from .exact import SweepBudget, patching, sweep
from .faithfulness import Faithfulness, faithfulness
from .general_importance import exclude_general, general_importance, mark_general
from .integrated_gradients import integrated_gradients
from .knowledge_neurons import (
    coarse_neurons,
    knowledge_neuron_scores,
    knowledge_neurons,
    neuron_activations,
    refined_neurons,
    scaled_neurons,
)
from .localization import Localization
from .methods import METHODS, Locator, estimates, locator, perform
from .minimality import Minimality, minimality
from .ranking import Ranking
from .record import LocalizationRecord
from .site_roles import label_roles
from .stability import Stability, stability
from .taylor import taylor
from .tracing import Tracing, tracing

__all__ = [
    "METHODS",
    "Agreement",
    "Circuit",
    "Edge",
    "Faithfulness",
    "Localization",
    "LocalizationRecord",
    "Locator",
    "Minimality",
    "Ranking",
    "Stability",
    "SweepBudget",
    "Tracing",
    "agreement",
    "all_layer_sites",
    "atp_star",
    "attribution",
    "coarse_neurons",
    "control_sites",
    "dimension_scores",
    "direct_logit",
    "eap",
    "eap_ig",
    "eap_ig_scores",
    "eap_scores",
    "edge_patching",
    "estimates",
    "exclude_general",
    "faithfulness",
    "general_importance",
    "integrated_gradients",
    "knowledge_neuron_scores",
    "knowledge_neurons",
    "label_roles",
    "locator",
    "mark_general",
    "means",
    "minimality",
    "neuron_activations",
    "node_scores",
    "other_relation_sites",
    "patching",
    "perform",
    "query_key_scores",
    "random_sites",
    "refined_neurons",
    "scaled_neurons",
    "stability",
    "substitutes",
    "sweep",
    "taylor",
    "tracing",
    "zeros",
]
