from .backends import face_classifier as face_classifier, face_detector as face_detector
from .classify import ImageAffect as ImageAffect
from .deepface import DeepFaceAffect as DeepFaceAffect
from .detect import CascadeDetector as CascadeDetector, YuNetDetector as YuNetDetector
from .emotions import EMOTIONS as EMOTIONS
from .session import session_of_recording as session_of_recording
from .sentiment import NextTurnSentiment as NextTurnSentiment
from .transcripts import Transcript as Transcript, Utterance as Utterance, read_transcript as read_transcript
from .turns import affect_of_turns as affect_of_turns
from .video import VideoAffect as VideoAffect
