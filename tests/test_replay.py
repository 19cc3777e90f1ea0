from __future__ import annotations

import pytest
import torch

from cyclegan.replay import ReplayPool


def numbered(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone()


def numbers(images: torch.Tensor) -> list[int]:
    return images[:, 0, 0, 0].int().tolist()


def test_new_images_come_back_while_the_pool_fills():
    pool = ReplayPool(3)
    assert numbers(pool.swap(numbered(1, 2))) == [1, 2]
    assert numbers(pool.swap(numbered(3))) == [3]
    assert numbers(torch.stack(pool.images)) == [1, 2, 3]


def test_a_full_pool_gives_half_of_the_time_a_past_image_whose_place_the_new_one_takes():
    torch.manual_seed(0)
    pool, past = ReplayPool(10), set(range(10))
    pool.swap(numbered(*range(10)))
    swapped = 0
    for new in range(10, 2010):
        (out,) = numbers(pool.swap(numbered(new)))
        if out != new:
            assert out in past
            past = past - {out} | {new}
            swapped += 1
        assert past == set(numbers(torch.stack(pool.images)))
    assert 900 < swapped < 1100


def test_images_come_back_without_their_gradient_from_a_pool_of_none_too():
    images = numbered(1, 2).requires_grad_()
    for pool in (ReplayPool(0), ReplayPool(1)):
        for _ in range(10):
            assert not pool.swap(images).requires_grad
        assert not any(image.requires_grad for image in pool.images)
    assert numbers(ReplayPool(0).swap(images)) == [1, 2]


def test_stored_images_do_not_change_with_the_tensor_they_came_from():
    pool, images = ReplayPool(2), numbered(1)
    pool.swap(images)
    images.zero_()
    assert numbers(torch.stack(pool.images)) == [1]


def test_nor_do_images_that_took_the_place_of_others():
    torch.manual_seed(0)
    pool, later = ReplayPool(1), [numbered(number) for number in range(2, 12)]
    pool.swap(numbered(1))
    for images in later:
        pool.swap(images)
        (kept,) = numbers(torch.stack(pool.images))
        images.zero_()
        assert numbers(torch.stack(pool.images)) == [kept]
    assert kept > 1


def test_state_restores_pictures_and_draws():
    torch.manual_seed(1)
    pool = ReplayPool(4)
    pool.swap(numbered(*range(4)))
    state, random = pool.state_dict(), torch.get_rng_state()
    ahead = [numbers(pool.swap(numbered(i))) for i in range(10, 30)]
    again = ReplayPool(4)
    again.load_state_dict(state)
    torch.set_rng_state(random)
    assert [numbers(again.swap(numbered(i))) for i in range(10, 30)] == ahead


def test_pictures_of_another_size_are_of_no_use_any_more():
    torch.manual_seed(0)
    pool = ReplayPool(2)
    pool.swap(numbered(1, 2))
    large = torch.full((1, 3, 4, 4), 7.0)
    assert all(pool.swap(large).shape == large.shape for _ in range(20))
    assert {image.shape for image in pool.images} == {large.shape[1:]}


@pytest.mark.gpu
def test_a_pool_that_was_restored_gives_pictures_on_the_gpu():
    pool = ReplayPool(2)
    pool.load_state_dict({"_extra_state": list(numbered(1, 2))})
    assert all(pool.swap(numbered(3).cuda()).is_cuda for _ in range(20))
