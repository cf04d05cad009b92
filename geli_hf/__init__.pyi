from .affect.classify import ImageAffect as ImageAffect
from .data import load_sessions as load_sessions
from .data import read_report as read_report
from .models.attribution import HindsightAttribution as HindsightAttribution
from .models.facial_affect.configuration_affect import FacialAffectConfig as FacialAffectConfig
from .models.facial_affect.image_processing_affect import FacialAffectImageProcessor as FacialAffectImageProcessor
from .models.facial_affect.modeling_affect import FacialAffectModel as FacialAffectModel
from .models.geli_reward.configuration_geli import GeliRewardConfig as GeliRewardConfig
from .models.geli_reward.modeling_geli import GeliRewardModel as GeliRewardModel
from .models.geli_reward.modeling_geli import GeliRewardOutput as GeliRewardOutput
from .models.published_head import convert_head as convert_head
from .sessions import SessionError as SessionError
from .sessions import add_signal as add_signal
from .sessions import session_features as session_features
from .sessions import split_sessions as split_sessions
from .sessions import validate_sessions as validate_sessions
from .training import PAPER as PAPER
from .training import GeliRewardArguments as GeliRewardArguments
from .training import GeliRewardTrainer as GeliRewardTrainer
from .training import fit_hindsight as fit_hindsight

__version__: str
