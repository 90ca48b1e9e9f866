"""All tables. Importing this package makes the metadata complete."""

from app.models.annotations import Annotation, AnnotationRevision, Flag, FlagKind, Skip, SkipReason
from app.models.assignments import Assignment, AssignmentState, WorkDay
from app.models.base import Base, new_id, now
from app.models.batches import (
    Batch,
    BatchState,
    BatchTarget,
    BatchVariant,
    Guideline,
    RationaleMode,
    ResponseDisplay,
    SkipPolicy,
)
from app.models.checkpoints import Checkpoint
from app.models.comparisons import (
    Comparison,
    ComparisonState,
    Conversation,
    ConversationState,
    PromptSource,
    Response,
    SamplingJob,
)
from app.models.datasets import Freeze, PreferenceDataset, SplitPrompt
from app.models.external import ExternalDataset, TrainingSet
from app.models.insights import KeptInsights
from app.models.people import ApiToken, AuditEvent, Person, PersonRole, SignInLink, SignInSession, TokenScope
from app.models.pool import PoolPrompt, PoolPromptState
from app.models.review import GoldComparison, Qualification, QualificationTest, Review, Verdict
from app.models.schedule import Schedule, SkippedWeek
from app.models.training import Evaluation, RewardModel, TrainingPoint, TrainingRun, TrainingRunDataset
from app.models.work import Leased, Worker, WorkState
from app.models.workspace import Draft, DraftKind, GuidelineRead

__all__ = [
    "Annotation",
    "AnnotationRevision",
    "ApiToken",
    "Assignment",
    "AssignmentState",
    "AuditEvent",
    "Base",
    "Batch",
    "BatchState",
    "BatchTarget",
    "BatchVariant",
    "Checkpoint",
    "Comparison",
    "ComparisonState",
    "Conversation",
    "ConversationState",
    "Draft",
    "DraftKind",
    "Evaluation",
    "ExternalDataset",
    "Flag",
    "FlagKind",
    "Freeze",
    "GoldComparison",
    "Guideline",
    "GuidelineRead",
    "KeptInsights",
    "Leased",
    "Person",
    "PersonRole",
    "PoolPrompt",
    "PoolPromptState",
    "PreferenceDataset",
    "PromptSource",
    "Qualification",
    "QualificationTest",
    "RationaleMode",
    "Response",
    "ResponseDisplay",
    "Review",
    "RewardModel",
    "SamplingJob",
    "Schedule",
    "SignInLink",
    "SignInSession",
    "Skip",
    "SkipPolicy",
    "SkipReason",
    "SkippedWeek",
    "SplitPrompt",
    "TokenScope",
    "TrainingPoint",
    "TrainingRun",
    "TrainingRunDataset",
    "TrainingSet",
    "Verdict",
    "WorkDay",
    "WorkState",
    "Worker",
    "new_id",
    "now",
]
