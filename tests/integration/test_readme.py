"""What the README shows in Python runs as it stands there, but for the address."""

import asyncio
import re
from pathlib import Path

from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.placement_service_pb2 import ListControlsRequest
from shopkeeper.v1.placement_service_pb2_grpc import PlacementServiceStub

README = Path(__file__).parents[2] / "README.md"


async def test_the_examples_in_python_run_and_the_pin_stays(shop):
    items = [Item(item_id=name, brand="Private") for name in ("995242", "1082185", "840361")]
    await shop.client.upsert_items(items)
    examples = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        code = compile(example.replace("localhost:50051", shop.address), README, "exec")
        await asyncio.to_thread(exec, code, {})
    controls = (await PlacementServiceStub(shop.channel).ListControls(ListControlsRequest())).controls
    assert [control.control_id for control in controls] == ["first"]
    slate = (await shop.client.recommend("home_for_you", "visitor-7")).slates[0]
    assert slate.items[0].item_id == "1082185"
