"""All stages of an audit, in the order in which they run."""

from palladion.redteam.audit.distillation import DISTILLATION
from palladion.redteam.audit.extraction import EXTRACTION
from palladion.redteam.audit.inversion import INVERSION
from palladion.redteam.audit.last_layer import LAST_LAYER
from palladion.redteam.audit.membership import MEMBERSHIP
from palladion.redteam.audit.noticed import NOTICED
from palladion.redteam.audit.removal import REMOVAL
from palladion.redteam.audit.reverse_engineering import REVERSE_ENGINEERING
from palladion.redteam.audit.stage import Stage
from palladion.redteam.audit.supply_chain import SUPPLY_CHAIN
from palladion.redteam.audit.surface import SURFACE

STAGES: tuple[Stage, ...] = (
    SURFACE,
    SUPPLY_CHAIN,
    EXTRACTION,
    MEMBERSHIP,
    INVERSION,
    REVERSE_ENGINEERING,
    DISTILLATION,
    LAST_LAYER,
    REMOVAL,
    NOTICED,
)
