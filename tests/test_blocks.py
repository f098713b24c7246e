"""States of alike parameters as one tensor: a view, a repacking or a copy that goes back."""

import torch

from sgc.blocks import adjacent, block, together


def test_neighbours_are_viewed(device):
    whole = torch.arange(24.0, device=device).view(4, 2, 3)
    states = [{"m": whole[i]} for i in range(4)]
    for chosen in (states, states[1:3], states[2:3]):
        tensor, write_back = block(chosen, "m")
        assert tensor.data_ptr() == chosen[0]["m"].data_ptr()
        assert torch.equal(tensor, torch.stack([s["m"] for s in chosen]))
        write_back()
    tensor, _ = block(states, "m")
    tensor += 1
    assert torch.equal(whole.flatten(), torch.arange(1.0, 25.0, device=device))


def test_owners_are_packed_once(device):
    states = [{"m": torch.full((2, 3), float(i), device=device)} for i in range(3)]
    tensor, write_back = block(states, "m")
    tensor *= 2
    write_back()
    assert [float(s["m"].mean()) for s in states] == [0.0, 2.0, 4.0]
    assert states[1]["m"].data_ptr() == tensor[1].data_ptr()
    assert block(states, "m")[0].data_ptr() == tensor.data_ptr()


def test_scattered_members_are_copied_and_put_back(device):
    whole = torch.arange(4.0, device=device)
    states = [{"m": whole[i]} for i in (0, 2, 3)]
    tensor, write_back = block(states, "m")
    tensor += 10
    assert whole.tolist() == [0, 1, 2, 3]
    write_back()
    assert whole.tolist() == [10, 1, 12, 13]
    mixed = [{"m": whole[0]}, {"m": torch.tensor(5.0, device=device)}]
    tensor, write_back = block(mixed, "m")
    tensor.zero_()
    write_back()
    assert [float(s["m"]) for s in mixed] == [0, 0]


def test_only_what_lies_in_order_in_one_storage_is_adjacent():
    whole = torch.zeros(3, 4)
    assert adjacent([whole[0], whole[1]]) is not None
    assert adjacent([whole[1], whole[0]]) is None
    assert adjacent([whole[0], whole[2]]) is None
    assert adjacent([whole[0], whole[0]]) is None
    square = torch.zeros(2, 4, 4)
    assert adjacent([square[0].T, square[1].T]) is None
    # Neighbours in memory that are not of one storage.
    buffer = bytearray(64)
    near = [torch.frombuffer(buffer, dtype=torch.float32, count=8, offset=o) for o in (0, 32)]
    assert near[0].data_ptr() + near[0].nbytes == near[1].data_ptr()
    assert adjacent(near) is None
    assert together(near).shape == (2, 8)
    assert block([{"m": torch.zeros(0)}, {"m": torch.zeros(0)}], "m")[0].shape == (2, 0)
