"""Contains all the data models used in inputs/outputs"""

from .batch_delete_item import BatchDeleteItem
from .batch_delete_request import BatchDeleteRequest
from .batch_get_request import BatchGetRequest
from .batch_get_response import BatchGetResponse
from .batch_get_result import BatchGetResult
from .batch_key import BatchKey
from .batch_put_item import BatchPutItem
from .batch_put_request import BatchPutRequest
from .batch_write_response import BatchWriteResponse
from .batch_write_result import BatchWriteResult
from .can_stop import CanStop
from .clock_entry import ClockEntry
from .explained_sibling import ExplainedSibling
from .explanation import Explanation
from .explanation_omitted_item import ExplanationOmittedItem
from .failure_risk import FailureRisk
from .get_value_conflict import GetValueConflict
from .head_snapshot_part import HeadSnapshotPart
from .head_value_conflict import HeadValueConflict
from .hot_key import HotKey
from .hot_keys import HotKeys
from .inspection import Inspection
from .item_problem_type_1 import ItemProblemType1
from .item_problem_type_1_outcome import ItemProblemType1Outcome
from .layout import Layout
from .layout_change import LayoutChange
from .layout_member import LayoutMember
from .layout_ref import LayoutRef
from .layouts import Layouts
from .list_keys_response import ListKeysResponse
from .listed_key import ListedKey
from .move import Move
from .node import Node
from .node_share import NodeShare
from .node_status import NodeStatus
from .nodes import Nodes
from .operation_stats import OperationStats
from .operation_stats_operation import OperationStatsOperation
from .outcome import Outcome
from .problem import Problem
from .repair_request import RepairRequest
from .repair_response import RepairResponse
from .replica import Replica
from .replica_report import ReplicaReport
from .replica_role import ReplicaRole
from .replica_sibling import ReplicaSibling
from .replica_state import ReplicaState
from .restored import Restored
from .sibling import Sibling
from .siblings import Siblings
from .slot_range import SlotRange
from .snapshot_part import SnapshotPart
from .stats import Stats
from .status import Status
from .stop_shortage import StopShortage
from .switch import Switch
from .task import Task
from .task_kind import TaskKind
from .task_state import TaskState
from .tasks import Tasks
from .written import Written

__all__ = (
    "BatchDeleteItem",
    "BatchDeleteRequest",
    "BatchGetRequest",
    "BatchGetResponse",
    "BatchGetResult",
    "BatchKey",
    "BatchPutItem",
    "BatchPutRequest",
    "BatchWriteResponse",
    "BatchWriteResult",
    "CanStop",
    "ClockEntry",
    "ExplainedSibling",
    "Explanation",
    "ExplanationOmittedItem",
    "FailureRisk",
    "GetValueConflict",
    "HeadSnapshotPart",
    "HeadValueConflict",
    "HotKey",
    "HotKeys",
    "Inspection",
    "ItemProblemType1",
    "ItemProblemType1Outcome",
    "Layout",
    "LayoutChange",
    "LayoutMember",
    "LayoutRef",
    "Layouts",
    "ListKeysResponse",
    "ListedKey",
    "Move",
    "Node",
    "NodeShare",
    "NodeStatus",
    "Nodes",
    "OperationStats",
    "OperationStatsOperation",
    "Outcome",
    "Problem",
    "RepairRequest",
    "RepairResponse",
    "Replica",
    "ReplicaReport",
    "ReplicaRole",
    "ReplicaSibling",
    "ReplicaState",
    "Restored",
    "Sibling",
    "Siblings",
    "SlotRange",
    "SnapshotPart",
    "Stats",
    "Status",
    "StopShortage",
    "Switch",
    "Task",
    "TaskKind",
    "TaskState",
    "Tasks",
    "Written",
)
